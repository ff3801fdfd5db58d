//go:build !linux

package durable

func (osFile) Reserve(int64) error { return nil }
