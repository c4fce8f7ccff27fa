"""Playbooks for talking avatars."""
