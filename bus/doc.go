// Package bus carries messages between the processes of a service.
//
// A [Bus] has topics. Whoever publishes a message on a topic reaches all who are
// subscribed to it, in this process and in others. [Memory] serves one process and
// is the reference for the others. [Redis] is the publish and subscribe of Redis.
// [Streams] keeps a history in Redis, from which a subscriber that was cut off reads
// on. None of them loses a message in silence: a subscription returns a [Gap] for
// messages that it has missed, or may have. Streams, and Memory if it is told to, is a
// [History]: it returns the newest messages of a topic, and those behind one.
//
//	client, err := bus.NewRedisClient("redis://10.0.0.5:6379")
//	// ...
//	b := &bus.Redis{Client: client}
//	sub, err := b.Subscribe(ctx, "orders")
//	// ...
//	err = b.Publish(ctx, "orders", []byte("tea"))
//	// ...
//	for m, err := range bus.All(ctx, sub) { // m.Data is "tea"
//
// A [Topic] has a type for its messages, which are JSON then.
//
// Package bus/hub keeps rooms of local sockets and joins them over a bus to those of
// other processes. Package bus/socketio speaks with Socket.IO's own clusters. Package
// bus/nats has buses over NATS, in a module of its own.
package bus
