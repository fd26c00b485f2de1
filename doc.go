// Package limpet documents the toolkit; the code is in its sub-packages.
//
// A limpet goes foraging and always comes home to the same spot on its rock.
// Limpet does that for the clients of Socket.IO and WebSocket servers that run
// on several machines: each client keeps coming home to the backend that knows
// it, and finds a new home at once when that backend is gone.
//
//   - balancer knows who can serve: backends, pool, pickers, health, transport.
//   - affinity knows whom a client belongs to: cookies, hashes, tables, stores.
//   - upgrade takes WebSockets through: handshakes and tunnels.
//   - bus carries messages between processes. Over it bus/hub joins rooms of sockets
//     on several machines, and bus/socketio speaks with Socket.IO's own clusters.
//   - middleware puts them together: the Gateway, and parts that work alone.
//
// All but middleware import nothing of each other and can be used by themselves.
//
// # Where to start
//
// A service that has no proxy yet mounts a Gateway and runs it with Gateway.Serve, as
// the program in README.md does:
//
//	pool := balancer.Static("a=http://10.0.0.1:3000", "b=http://10.0.0.2:3000")
//	gateway, err := middleware.NewGateway(pool, nil)
//	…
//	r.Handle("/socket.io/*", gateway)
//	err = gateway.Serve(ctx, &http.Server{Handler: r}, listener, 30*time.Second)
//
// By default each client stays at its backend by a cookie or, if it keeps none, by the
// session ID of Socket.IO. Options.Affinity has what several gateways need for that.
//
//   - [github.com/limpet-go/limpet/middleware] has the Gateway, and Sticky for a service
//     that has an httputil.ReverseProxy.
//   - [github.com/limpet-go/limpet/balancer/discovery] finds the backends: by DNS, in a file,
//     or in Kubernetes.
//   - [github.com/limpet-go/limpet/middleware/status] is a page that shows a gateway and
//     steers it, and the same as JSON.
//   - [github.com/limpet-go/limpet/middleware/metrics] is for Prometheus.
//   - [github.com/limpet-go/limpet/affinity] lists the ways to keep a client at its
//     backend, [github.com/limpet-go/limpet/balancer] those to choose one.
//   - [github.com/limpet-go/limpet/bus/hub] is for a service with WebSockets of its own,
//     on several machines; [github.com/limpet-go/limpet/bus/socketio] is for one that
//     speaks with a Socket.IO cluster.
//
// README.md beside this file has recipes, the mistakes that people make with their
// cures, and what to write for what nginx, HAProxy and Apache have. The programs in
// examples are there to be copied: quickstart shows Limpet on a page, gateway is a
// complete gateway by flags.
//
// # Words
//
// A backend is one upstream server, a pool the set of them. A group is the backends of
// one version, such as stable or canary; its share says how many of the new clients it
// gets. A source names the backends that a pool follows. A picker chooses among backends
// for a client that has no home yet. A pin ties one client to one
// backend; an affinity finds a request's pin and binds a new one onto the
// answer; a store is a table of pins. A tunnel is an upgraded connection from
// client to backend. The gateway puts it all together; several gateways side by
// side are replicas. A bus carries messages between processes, and a hub joins
// rooms of local sockets over it. A node is a Socket.IO server process: a backend,
// seen from Socket.IO.
//
// A backend is Up, Draining or Down. That follows from two independent facts:
// what is wanted (serve, drain, off), by the operator or by the source that names it, and
// what health says (well, sick, dead). Up takes all clients. Draining, because it is drained
// or because it is sick, keeps its own and takes no new ones. Down, because it is
// off, dead or past its drain's deadline, takes nothing. A sick backend lives, but doesn't
// answer its health check as expected, or not at all, or it was ejected because of how it
// treats requests. A dead one gives no sign of life.
//
// # The path of a request
//
//  1. The affinity finds the pin: the client's home, a key that stands for the
//     client, and how that was found (none, hit, expired, forged, unknown).
//     Trouble with a store is logged and the request goes on unpinned.
//  2. The outgoing request is built, and the affinity takes its mark off it.
//  3. The pool picks a backend: the home if it keeps this client (it is Up, or sick,
//     or drained while the client's turn hasn't come). Otherwise, if groups have shares,
//     the group is chosen first: that of the home, that to which the key hashes, or the
//     next one in turn. Then, with a key, rendezvous hashing of the key over the backends
//     that are Up, so that every replica and every parallel request of this client that
//     sees the same backends agrees on the same new home without talking; else the
//     picker, which passes over backends that let new clients wait while enough others are
//     Up. The request is sent. For a WebSocket the backend's 101 is obtained before the
//     client's connection is touched. If that fails before a byte reached the client and
//     the request may be sent again, health is told, and another backend is picked.
//  4. The affinity binds the client on the final answer, the 101 too, never on
//     1xx and never on an answer of the gateway's own. A home is bound on answer
//     and not when it is picked, so a retry leaves no wrong cookie behind.
//  5. The answer is streamed, or both connections go to the tunnel's engine.
//
// # When something fails
//
//	what fails                              what the client sees
//	--------------------------------------  ------------------------------------------------
//	pinned backend refuses, or is Down      the answer of its new home and a new pin; no error
//	backend dies before its answer began    the same if the request may be sent again, else
//	                                        502
//	backend dies within its answer          a broken connection, never a short answer that
//	                                        looks whole
//	backend hangs (accepts, never answers)  the health path finds it Down: its tunnels get a
//	                                        close frame, its waiting requests go on elsewhere,
//	                                        or get 504 where they can't. A handshake that it
//	                                        doesn't answer ends after 10 s
//	                                        (upgrade.Proxy.HandshakeTimeout)
//	backend lets new clients wait           a request or handshake that any backend could
//	                                        serve is tried elsewhere after 0.2 to 1 s, by what
//	                                        the backend usually takes. A backend that answers
//	                                        nobody meanwhile is picked last until a check is
//	                                        good, for 10 s at most
//	backend takes no new connections, but   its tunnels stay, and so do requests that wait
//	serves those that it has                there; new clients go elsewhere once two checks
//	                                        have failed
//	backend breaks requests, is slow, or    by option (balancer.Options.Outliers): it is
//	answers with chosen statuses            ejected for a while, in which it keeps its clients
//	                                        and gets no new ones
//	backend is full (balancer.Limit)        new clients go to another one; those of this home,
//	                                        and all when every backend is full, wait in a
//	                                        queue, and get 503 with Retry-After if that is
//	                                        full or takes too long
//	its tunnel's backend dies or goes Down  a WebSocket close frame 1012 (service restart), or
//	                                        none if a frame was cut in half, and the TCP close
//	drain                                   no new pins; each client leaves at its own moment
//	                                        of the drain's time, when none of its messages
//	                                        waits for an answer (a second at most): its tunnel
//	                                        with 1012, its polling session by Engine.IO's close
//	                                        packet to its node
//	backend joins or comes back             new clients only; with Options.Rebalance its share
//	                                        of the WebSockets and polling sessions too, each
//	                                        of which leaves as in a drain
//	health page broken everywhere           nothing: sick backends keep their clients, and
//	                                        when none is Up they take new ones
//	most backends look dead at once         half of the pool keeps its tunnels; requests that
//	                                        wait there and may be repeated go elsewhere while
//	                                        another backend is Up, within the budget for
//	                                        retries
//	no backend at all                       503 with Retry-After
//	polling session whose node is gone      Engine.IO's own "Session ID unknown", so that the
//	                                        client opens a new session. Requests that are
//	                                        under way, or begin just after the death, wait for
//	                                        that until health has judged the node, for 2 s or
//	                                        as long as its checks need, 15 s at most. If it
//	                                        isn't found Down, a request that failed there gets
//	                                        502
//	the store of pins is gone               nothing: pins go on from each replica's memory,
//	                                        others go where their key hashes to
//	replicas lose the bus                   nothing: each goes on with what it knows, and they
//	                                        agree on the last decision when it is back
//	the source of backends fails, names     nothing: the backends stay as they were
//	none, or makes no sense
//	the source stops naming a backend       its clients leave within 30 s
//	                                        (balancer.Target.Grace)
//	a backend moves under its ID            its clients are at the new address with their next
//	                                        request; tunnels get 1012
//	this gateway ends (SIGTERM)             handshakes and requests that are under way are
//	                                        completed, and for up to 2 s those that come on
//	                                        kept connections; tunnels get 1012, each at its
//	                                        moment of the drain; new connections are refused
//	a forged or foreign cookie              it is treated as no pin
//
// Each row has a test, most of them in middleware, many in failure_test.go, and those of
// sources in balancer/follow_test.go.
//
// Health alone never cuts the tunnels of more than half of the pool: if most of
// the backends look dead at once, it is more likely that the check fails, or the
// network on this side. A check that isn't answered makes a backend dead only if it
// gives no other sign of life.
package limpet
