"""Score a network, features of any framework, or several runs beside each other."""
