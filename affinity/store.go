package affinity

import (
	"context"
	"time"
)

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
	// use, however long it is open, unless the store is a [Toucher].
	Load(ctx context.Context, key string) (backend string, err error)

	// Swap replaces the backend of key by new if it is old. It returns what is
	// there afterwards: new if the swap won, or the backend that was there
	// instead of old. If old is "", the key must be absent. If new is "", the
	// key is deleted. A swap that wins restarts the lifetimes of the pin.
	//
	// After an error, the swap may or may not have happened.
	Swap(ctx context.Context, key, old, new string) (now string, err error)
}

const defaultIdle = 24 * time.Hour // of an LRU and of a Redis

// A Toucher is a [Store] whose pins expire when they are unused. A client that has
// a tunnel open sends no requests, and so a gateway touches its pin instead. Touch
// may be called by many goroutines at once.
type Toucher interface {
	Store

	// Touch counts as use of the pin of key if its backend is this one. A pin
	// that names another backend stays as it is, since the client has moved,
	// and no pin is made where there is none. Touch doesn't extend a lifetime
	// that ends in spite of use.
	Touch(ctx context.Context, key, backend string) error

	// TouchEvery returns how much time may pass between two touches of a pin
	// while a tunnel is open. It should be a quarter of the pin's idle lifetime:
	// a touch may come twice as late as that, and may fail. 0 means that pins
	// don't expire for lack of use. It must always be the same.
	TouchEvery() time.Duration
}
