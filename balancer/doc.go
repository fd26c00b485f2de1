// Package balancer knows who can serve: the backends, the pool that picks one
// of them for a request, the health checks that keep the pool true, and the
// transport that reaches a backend and wakes whoever waits on a lost one. A pool
// has one [Transport], for checks too: what it says about TLS, source addresses
// and the PROXY protocol is said once.
//
// Health checks run only while the embedder runs them: go pool.Run(ctx).
// Without Run every backend is taken to be well, and a warning says so once.
//
// A backend's [State] is derived from two independent facts: what the operator
// wants (serve, drain, off) and what health says (well, sick, dead).
//
//	           well      sick      dead
//	serve      Up        Draining  Down
//	drain      Draining  Draining  Down   (past its deadline: Down)
//	off        Down      Down      Down
//
// Sick means that the backend answers its health check, but not as expected;
// dead means that no answer came. A broken health page therefore never cuts a
// living session, and when no backend is Up the sick ones take new clients.
package balancer
