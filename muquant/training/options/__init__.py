"""What a run is asked for: values that know their types, ranges and names, and build nothing."""
