"""What plug-ins must do, as checks that they can run themselves: `voices`."""
