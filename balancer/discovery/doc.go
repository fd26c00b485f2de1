// Package discovery finds backends for a pool that follows a source: see
// [balancer.Pool.Follow].
//
//	source, err := discovery.Parse("dns://nodes.internal:3000")
//	...
//	go pool.Follow(ctx, source)
//
// There are [DNS] for names with several addresses and for SRV records, [File] for a file
// that something else writes, and [Kubernetes] for the Pods of a Service. Each keeps the IDs
// of backends stable, so that clients stay where they are when the order or the number of
// backends changes, and reads no more than it could make sense of, whatever its peer sends.
package discovery
