"""The commands, one file each: parse, one call of the library, print."""
