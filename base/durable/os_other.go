//go:build !linux

package durable

import "errors"

func (osFile) Reserve(int64) error { return nil }

func renameNew(string, string) error { return errors.ErrUnsupported }
