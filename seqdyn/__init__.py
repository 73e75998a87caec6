"""seqdyn."""
