//go:build !linux

package upgrade

// loops are the event loops that other systems than Linux don't have.
type loops struct{}

func (*loops) start(link) engine { return nil }
