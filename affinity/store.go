package affinity

import "context"

// A Store is a table of pins: it maps the keys of clients to the IDs of their
// backends. It may be called by many goroutines at once. If ctx is done when a
// method is called, the method changes nothing and returns an error that wraps
// ctx.Err().
//
// A store that serves several replicas must make Swap atomic among all of them,
// which is what makes the replicas agree. Package affinitytest has conformance
// tests for stores.
type Store interface {
	// Load returns the backend of key, or "" if there is none. If pins of this
	// store expire when they are unused, Load counts as use. A tunnel is one
	// use, however long it is open.
	Load(ctx context.Context, key string) (backend string, err error)

	// Swap replaces the backend of key by new if it is old. It returns what is
	// there afterwards: new if the swap won, or the backend that was there
	// instead of old. If old is "", the key must be absent. If new is "", the
	// key is deleted. A swap that wins restarts the lifetimes of the pin.
	//
	// After an error, the swap may or may not have happened.
	Swap(ctx context.Context, key, old, new string) (now string, err error)
}
