//go:build !linux

package upgrade

// loops is the engine for Linux.
type loops struct{}

func (*loops) start(link) engine { return nil }
