// Package status shows how a gateway is, and lets those steer who may: as a page, and as
// JSON for scripts.
//
//	r.Mount("/limpet", status.New(gateway, nil)) // chi; mux.Handle("/limpet/", …) with net/http
//
// Without [Options.Authorize] nobody can change anything. With it, those whom it lets pass
// drain backends, turn them off, change their weights, look clients up and move them, and
// close tunnels. What they decide about backends and clients holds on all gateways of the
// bus, as if they had called the methods of the pool and the gateway. Each action is logged
// with who did it. Pages of other origins can't do any of it in somebody's name
// ([http.CrossOriginProtection]).
//
// # The calls
//
// GET api/ below the mount's path lists all calls. A deploy script drains a backend, waits
// until no gateway has a request or a tunnel there, and goes on:
//
//	curl -fsS -X POST -u ops:$PASSWORD -H 'Content-Type: application/json' \
//	    -d '{"within":"60s"}' https://gw.example/limpet/api/backends/a/drain
//	curl -fsS -u ops:$PASSWORD 'https://gw.example/limpet/api/backends/a?wait=empty&timeout=90s'
//
// An error is answered with a status of 4xx or 5xx and {"error":"…"}. Fields may be added
// to the answers later; those that there are stay.
//
//	call                            what it does
//	------------------------------  -----------------------------------------------------
//	GET  api/state                  how everything is now; ?history=1 adds the last minute
//	                                of each backend and the last 200 events
//	GET  api/events                 server-sent events: state each second and at each change
//	                                of a backend, event when something has happened
//	GET  api/backends/a             one backend, as in the state
//	     ?wait=empty&timeout=90s    the same, when it may be stopped: it is drained or off,
//	                                keeps nobody any more, and nothing is in flight, here
//	                                and on all gateways of the bus; 504 if that takes longer,
//	                                409 if nobody drains it
//
// These are for those only who may steer, and answer 403 otherwise. A body is JSON:
//
//	POST api/backends/a/drain       {"within":"60s"}, or nothing for no deadline
//	POST api/backends/a/undrain
//	POST api/backends/a/off
//	POST api/backends/a/weight      {"weight":3}; 0 is the configured one
//	POST api/shares                 {"shares":{"stable":99,"canary":1}}; {} for no groups
//	POST api/pins/find              {"cookie":"…"}, {"sid":"…"}, {"address":"…"}, {"key":"…"}
//	POST api/pins/move              {"key":"…","backend":"b"}
//	POST api/pins/forget            {"key":"…"}
//	GET  api/tunnels                ?backend=a&key=…&limit=100
//	POST api/tunnels/ID/close       {"code":1012,"reason":"…"}
//	POST api/clients/close          {"key":"…","code":1012,"reason":"…"}
//
// pins/find answers with status, backend, goes, key, fixed and tunnels. backend is where the
// pin points, and goes where the client's next request would go. fixed says that the client's
// session exists at its home only: a move doesn't take the session along, it sends the client
// away.
//
// # The state
//
// The totals count since [New]. Each request that has ended is in exactly one of
// by_backend, by_gateway, by_affinity and aborted, which is those whose client left before
// there was an answer; requests is their sum. Those of a backend are in totals.requests of
// the backend, as long as the pool has it. A tunnel counts as a request when it begins, and
// its bytes count when it ends. errors of a backend are answers with 5xx, answers that it
// broke off, and attempts at it that failed; those that were sent elsewhere are its retries.
//
// rate is the answers a second, and error_rate the share of errors, over the last 10
// seconds. p50_ms and p99_ms are the times until the first byte of an answer, over the last
// minute. They have the answers of backends that say how fast the backends are. Left out are
// tunnels; answers that broke off; streams of server-sent events, which are the answers of the
// type text/event-stream; the long polls of Engine.IO, which are its GETs with a session's ID
// (transport=polling and sid in the query); and what [Options].Long names. All of them would
// only tell how long there was no news.
//
// group is that of the backend, left out for one in none, and shares are those of new clients
// by group, left out while groups don't matter: see balancer.Pool.SetShares.
//
// rebalance is there with the gateway's Options.Rebalance: whether clients are being moved to
// backends that have less than their share (running), for what that waits, how many clients this
// gateway has moved, and how many are left for all gateways.
//
// why is what has brought a backend into its state, and check_error what the last check has
// found wrong, which may not count yet.
//
// last, and the newest point of each history, describe the whole second with the number
// second. There, rate and errors are numbers of one second.
package status
