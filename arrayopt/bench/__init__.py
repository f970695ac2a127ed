"""Times beside other libraries, and beside what the memory allows: ``arrayopt bench``."""
