package store

func playRole(string) {}
