// Package balancer picks backends for requests and sends requests to them. A [Pool]
// holds the backends and picks one for each request. Its health checks find out which
// backends can serve. A [Transport] reaches the backends, and ends the requests to one
// that is lost. A pool has one Transport, which its checks use too, so that TLS, source
// addresses and the PROXY protocol are set once.
//
// Health checks run only while the embedder runs them: go pool.Run(ctx). Without
// Run every backend is taken to be well, and a warning is logged once.
//
// A backend's [State] is derived from two independent facts: what is wanted of it
// ([Backend.Wanted]: serve, drain, off) and what the checks find ([Health]: well, sick,
// dead). What is wanted is the operator's [Wish], and where that lets the backend serve,
// what the [Source] wants that has named the backend, if one did: see [Pool.Follow].
//
//	           well      sick      dead
//	serve      Up        Draining  Down
//	drain      Draining  Draining  Down   (past its deadline: Down)
//	off        Down      Down      Down
//
// A sick backend lives, but doesn't answer its health check as expected, or not at all; a
// dead one gives no sign of life. So a health page that is broken, or hangs, never ends a
// session that works. When no backend is Up the sick ones take new clients. And when most
// backends let new clients wait, so that the machines are likely just busy, those that are
// sick only because their checks are answered too late take new clients like the others.
// Pool.judge has the table of how a check's result changes health.
//
// With Options.Outliers health also depends on how backends treat clients' requests: an
// outlier is ejected for a while, which makes it sick, and never dead (see [Outliers]).
//
// # New clients
//
// A client that has a home stays there. What decides about the others, all of it off unless
// it is set, in this order:
//
//   - [Pool.SetShares]: the group, such as stable or canary, by its share of new clients. A
//     client whose home is gone stays in the group.
//   - [Options].Limit: backends that have no room are passed over while others have some.
//     [Pool.Acquire] waits where there is none.
//   - Rendezvous hashing for clients with a key, with HashBound not beyond a bound of load.
//   - The [Picker] for clients without one, with SlowStart by less than its weight for a
//     backend that has just come back.
//
// # Who changes what
//
// The operator's calls (Add, Remove, Drain, Off, Undrain, SetWeight, SetWish, SetShares),
// Follow and the checks change these facts. All hold the pool's mutex while they do, derive
// the new state, publish a new snapshot of the pool, and close [Backend.Lost] if that is
// due. Listeners (see [Pool.OnChange]) are called after that, without the mutex. Neither
// Pick nor a Transport takes it: there is no lock that all requests share.
package balancer
