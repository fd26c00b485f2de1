// Package middleware has what a service mounts: the [Gateway], an http.Handler that
// sends each client to its own backend, and the parts of it that work alone.
//
// Programs that use chi import a package named middleware already, so that the
// documentation imports this one as limpet.
//
// # What to mount
//
//   - [Gateway] serves plain requests and WebSockets. [Gateway.Serve] runs it with an
//     http.Server, [Gateway.Middleware] mounts it beside other handlers.
//   - [Sticky] brings affinity and failover to an httputil.ReverseProxy that the
//     service has already. It is an http.RoundTripper.
//   - [AssignCookie] gives each client a cookie that names its backend in the clear.
//   - [Origin] refuses WebSockets of other sites' pages.
//   - [Limit] refuses requests and WebSockets of clients that ask for too much.
//   - [Join] makes a client's WebSocket a member of a hub.
//   - [Gateway.Observe] has an [Observer] told of each request and tunnel. [AccessLog] is
//     one. Package metrics has one for Prometheus, and package status a live page with an
//     API, which can drain and move.
//   - [Gateway.Livez] and [Gateway.Readyz] are for probes. [ErrorPages] are the gateway's
//     own answers.
//
// A gateway in front of two backends:
//
//	pool := balancer.Static("a=http://10.0.0.1:3000", "b=http://10.0.0.2:3000")
//	gateway, err := limpet.NewGateway(pool, &limpet.Options{
//		Affinity: &affinity.Cookie{Secrets: secrets},
//	})
//	if err != nil {
//		return err
//	}
//	return gateway.Serve(ctx, &http.Server{Handler: gateway}, listener, 30*time.Second)
//
// # The order
//
// Handlers that log requests, or decide whether they are served at all, such as
// authentication, [Origin] and [Limit], come first. [AssignCookie.Handler] comes right
// before the gateway, and the gateway is last. Five things matter to the handlers in front
// of it:
//
//   - Their ResponseWriters need an Unwrap method, as [http.ResponseController] asks for.
//     Without one no WebSocket can be opened.
//   - They must not set RemoteAddr from fields of the request. [ClientIP] does what such
//     a handler is for, and needs the address of the connection.
//   - A handler that ends the request's context after a time, as chi's Timeout, ends
//     long polls too. WebSockets have left their handlers by then.
//   - Compression belongs to the backends. A handler that compresses may hold back
//     events.
//   - [Options].MaxBody is better than [http.MaxBytesHandler]: see there.
//
// # The path of a request
//
// [Gateway.ServeHTTP] checks the request (target.go) and takes one of two ways: proxy
// (proxy.go) for a plain request, tunnel (tunnel.go) for one that asks for an upgrade.
// Both do the same steps:
//
//  1. The router asks the affinity for the client's pin (router.go, find).
//  2. prepare makes the outgoing request (outgoing.go), with what it says about the
//     client (client_ip.go).
//  3. The router picks backends and tries them until one answers (router.go, send). What
//     an error means is judged in verdict.go, and whether the request may be sent again
//     in retry.go. The body is kept for that (replay.go).
//  4. The router binds the client to its home on the answer (bind.go).
//  5. The answer is copied to the client (answer.go), or both connections are handed to
//     the tunnel's engine.
//
// Three types hold the state of one request. A trip is what the router knows of it, for
// a Gateway and a Sticky alike. An outgoing is the request as backends will see it. A
// passage is both for a plain request through a Gateway, with what is used again for
// the next one. The rule about which goroutine writes to the client stands in writer.go.
package middleware
