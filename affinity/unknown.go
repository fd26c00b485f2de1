package affinity

import "context"

type unknownKey struct{}

// WithUnknown returns a copy of ctx that has f told of an answer by which a
// backend says that it doesn't know the client's session, as [EngineIO.Unknown]
// is. Whoever calls Bind puts it into the context of res.Request: so one
// affinity can serve several gateways, which each hear of their own. f is called
// within Bind, with what the affinity has found, or its member in a [Chain].
func WithUnknown(ctx context.Context, f func(found Pin)) context.Context {
	return context.WithValue(ctx, unknownKey{}, f)
}

// tellUnknown calls the function of WithUnknown, if there is one.
func tellUnknown(ctx context.Context, found Pin) {
	if f, ok := ctx.Value(unknownKey{}).(func(Pin)); ok {
		f(found)
	}
}
