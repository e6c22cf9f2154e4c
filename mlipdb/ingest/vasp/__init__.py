"""What readers of VASP's files share: levels of theory, names of runs, and the syntax of vasprun.xml and OUTCAR."""
