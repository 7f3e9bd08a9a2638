"""What every Seaway service stands on."""
