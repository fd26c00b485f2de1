// Package chaos tests a whole cluster under fire: backends, gateways and clients as real as
// they can be without leaving Go, while a schedule of faults kills, stops, drains and adds
// backends, breaks networks, restarts gateways and takes Redis away. What the clients saw
// is held to invariants afterwards.
//
//	go test ./internal/chaos                                        20 s, seed 1
//	go test ./internal/chaos -args -chaos.seed=7 -chaos.for=60s     others
//	go test ./internal/chaos -run Plants -timeout 30m -v -args -chaos.plant=.
//
// The backends and gateways are processes of the test binary. Between each gateway and each
// backend is a link, a TCP proxy that fails as networks do (proxy.go). 300 clients, or 100
// with -race or -short, speak WebSockets, poll as Engine.IO's clients do, and send plain
// GETs and POSTs; some come without cookies again and again (client.go, client_session.go).
// They choose a gateway for each request as a load balancer would, by readiness (balancer.go).
// Three tracks of faults go on side by side (faults.go), never at more than two backends at
// once. The seed decides on their order, targets and times, but the machine's timing
// is its own: a seed that fails once may pass the next time.
//
// All of that makes a history (history.go), of which these invariants hold (invariants.go):
//
//	silence       a client waits no longer than the faults allow that are in its way; as
//	              long as its home and its gateway are well, none is
//	answer        no 5xx, and no broken connection, to what another backend could answer
//	undisturbed   no session ends whose backend and gateway are well
//	close frame   a tunnel that ends has got a close frame, unless a frame was cut
//	one backend   all requests of a session reach the process that has it
//	order         a session's messages arrive once, in their order, and so do the echoes
//	pin           a home changes only after a fault of it
//	drain         a drained backend gets no new pin, by no gateway
//	once          no POST is executed twice
//	leak          in the end gateways use what they used before there were clients
//
// How long clients may wait follows from what each fault costs on an idle machine, and from
// a control group, whose requests go to a backend around the gateways at the same time: as
// the machine is slowed down by others, so are the bounds widened, for that moment only
// (bounds.go).
//
// A run that fails prints its seed, and for each invariant what the first clients saw that
// found it broken, with the faults around. -chaos.plant plants bugs, one at a time, in a
// copy of the module, and fails unless the test finds each of them (plants_test.go).
//
// Where redis-server is missing, the gateways have no bus and no store, which the log says.
package chaos
