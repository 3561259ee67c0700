"""From a data set's release to prepared records: readers, checks, the command."""
