// Package upgrade carries upgraded connections, WebSockets above all, from clients to
// backends.
//
// [Proxy.Connect] obtains the backend's 101 before the client's connection is touched.
// So a backend that refuses can still be replaced by another one, or its answer be
// passed on. [Tunnel.Serve] then takes the client's connection over from net/http, hands
// both connections to an engine and returns. From then on the tunnel has its own
// lifetime, its own registry ([Proxy.Tunnels]) and its own end ([Tunnel.Close],
// [Tunnel.CloseGracefully], [Proxy.CloseGroup], [Proxy.DrainGroup], [Proxy.Shutdown]).
//
// A tunnel is transparent: subprotocols, extensions, fragments, pings and close frames
// pass unchanged, and the engine holds no more of a message than one buffer in each
// direction. ([Proxy].MessageLimit is stricter.) The engine tracks the frames (RFC 6455,
// section 5) for three purposes only: to count messages, to put a close frame between
// two frames when the gateway or the loss of the backend ends the tunnel, and to put the
// messages of [Tunnel.Send] between two messages of the backend.
//
// # Engines
//
// On Linux, tunnels between two plain sockets (*net.TCPConn, *net.UnixConn) run on a few
// event loops, and an idle one costs some hundred bytes. So do tunnels over TLS, which
// cost what crypto/tls keeps for a connection: if the client has come through a
// [Listener], and for backends of https if [Proxy].Dial is nil or the Connect of package
// balancer's Transport. If one of the two connections is anything else, other TLS or a
// wrapped connection (but see [Proxy].Unwrap), and on other systems, a tunnel has two
// goroutines and costs much more. [Proxy].NoEventLoop gives every tunnel two goroutines.
//
// A loop's system calls never wait, and it makes them without telling Go's scheduler,
// which saves a tenth of a message's cost. In some places such a call takes long all the
// same: when the kernel has to find memory while it copies, or when a tracer, gVisor or
// a seccomp notifier looks at each call. Then the goroutines that share the processor
// stand still meanwhile. Build a program for such a place with
// -tags limpet_ordinary_syscalls: its loops tell the scheduler about each call.
package upgrade
