package affinity

import "context"

// A Store is a table of pins, from a client's key to the ID of its backend. It
// may be called by many goroutines at once. If ctx is done when a method is
// called, the method changes nothing and returns an error that wraps ctx.Err.
//
// A store that serves several replicas must make Swap atomic among all of them:
// that is what makes them agree. Package affinitytest has a conformance suite.
type Store interface {
	// Load returns the backend of key, "" if there is none. Where pins expire
	// by idleness, Load counts as use and starts the time anew.
	Load(ctx context.Context, key string) (backend string, err error)

	// Swap replaces the backend of key by new if it is old, and returns what
	// is there now: new if the swap won, the backend that won otherwise. An
	// old of "" wants the key to be absent; a new of "" deletes it. A swap
	// that wins starts the pin's lifetimes anew.
	//
	// After an error, the swap may or may not have happened.
	Swap(ctx context.Context, key, old, new string) (now string, err error)
}
