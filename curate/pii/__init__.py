"""Personal data and secrets: finding them, replacing them, showing that they are gone."""
