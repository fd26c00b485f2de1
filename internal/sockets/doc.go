// Package sockets has connections of plain TCP and Unix sockets, on Linux, that cost fewer
// system calls than those of package net. On other systems it hands out those of package net.
//
// A connection of package net is added to the runtime's poller when it is made, and each of
// its reads begins with a call that fails with EAGAIN if there is nothing to read, which is
// how most reads of a server begin. A [Conn] waits by an epoll of this package's own, whose
// events it remembers: a Read that knows that nothing is there waits at once. It is added to
// that epoll when it has to wait for the first time, or a moment later if the wait will most
// likely be short. And it can be taken out again, so that an event loop goes on with its
// descriptor ([Conn.Take]).
package sockets
