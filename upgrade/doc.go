// Package upgrade takes a client's WebSocket to a backend.
//
// [Proxy.Connect] obtains the backend's 101 before the client's connection is
// touched, so a backend that refuses can still be answered for, or another one
// tried. [Tunnel.Serve] then takes the client's connection over from net/http,
// hands both to an engine and returns: the tunnel has its own lifetime, its own
// registry ([Proxy.Tunnels]) and its own end ([Tunnel.Close],
// [Proxy.CloseGroup], [Proxy.DrainGroup], [Proxy.Shutdown]).
//
// A tunnel is transparent: subprotocols, extensions, fragments, pings and close
// frames pass unchanged, and the engine holds no more of a message than one
// buffer in each direction. (Proxy.MessageLimit is stricter.) It follows the frames (RFC 6455, section 5) only to
// count messages, to put a close frame between two of them when the tunnel ends
// for a reason of the gateway's or the backend's, and to let [Tunnel.Send] put a
// message of the gateway's between two of the backend's.
//
// On Linux, tunnels between two plain sockets (*net.TCPConn, *net.UnixConn) run
// on a few event loops, and an idle one costs some hundred bytes. Wherever one of
// the two is anything else, TLS or a connection that somebody has wrapped (but see
// Proxy.Unwrap), and on other systems, a tunnel has two goroutines and costs ten
// times as much. [Proxy].NoEventLoop makes it so everywhere.
//
// A loop makes its system calls, which never wait, without telling Go's scheduler,
// for a tenth of a message's cost. Where such a call takes long all the same, since
// the kernel looks for memory while it copies, or since a tracer, gVisor or a
// seccomp notifier looks at each call, the goroutines that share the processor stand
// still meanwhile. A program for such a place is built with
// -tags limpet_ordinary_syscalls, and then tells the scheduler each time.
package upgrade
