"""What the vendors' emulators share. Each stands in its vendor's folder and is named by the provider (`Provider.emulator`)."""
