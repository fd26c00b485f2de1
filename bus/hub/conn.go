package hub

import "context"

// A Conn takes messages to a member. It may be a WebSocket of [Hub.Handler], a tunnel
// of a gateway, or anything else that takes messages.
//
// The hub calls one method at a time. ctx ends after [Options].WriteTimeout: the Conn
// must return soon then, and the hub gives it up.
type Conn interface {
	// Send sends messages in their order. It must not keep the slice, which the
	// hub uses again. An error ends the member.
	Send(ctx context.Context, messages []*Frame) error
	// Close ends the connection, with a close frame if it can. It is called once,
	// after all calls of Send, even if one of them has failed. Code is one that may
	// be sent (RFC 6455, section 7.4), or 1005, which stands for a close frame
	// without code and reason. A reason has 123 bytes at most.
	Close(ctx context.Context, code int, reason string) error
}
