package affinity

import "context"

type standInKey struct{}

// WithStandIn returns a copy of ctx that says that the backend with this ID gave
// an answer in place of the client's home. Whoever calls Bind with another home
// than the backend that answered puts it into the context of res.Request.
func WithStandIn(ctx context.Context, backend string) context.Context {
	return context.WithValue(ctx, standInKey{}, backend)
}

// StandIn returns the ID of the backend that answered in place of the client's
// home, "" if it was home itself that answered. A client stays with its home
// nevertheless; but what the answer itself began, such as a session, exists at
// the backend that answered.
func StandIn(ctx context.Context) (backend string) {
	backend, _ = ctx.Value(standInKey{}).(string)
	return backend
}
