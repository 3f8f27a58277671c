"""What must hold while parts of a mesh die, freeze, are cut off or attacked."""
