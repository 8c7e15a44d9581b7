"""What knows nothing of networks: errors, files, values, names, seeds, devices, processes, pictures.

Import from the modules: this file imports nothing, so that who needs one of them loads no other.
"""
