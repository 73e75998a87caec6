"""Where sequences come from: tasks sampled on the device, data sets on disk."""
