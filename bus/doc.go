// Package bus carries messages between the processes of a service.
//
// A [Bus] has topics. [Memory] serves one process and is the reference, [Redis]
// is pub/sub, and [Streams] keeps a history from which a subscriber goes on where
// it was cut off. None of them loses a message in silence: what a subscription
// has missed, or may have, it says with a [Gap].
//
// A [Hub] keeps rooms of local sockets and joins them over a bus to those of the
// other processes. Package bus/socketio speaks to Socket.IO's own clusters.
package bus
