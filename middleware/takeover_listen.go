package middleware

import (
	"fmt"
	"net"
	"syscall"

	"github.com/limpet-go/limpet/internal/handover"
)

// A listener can be handed over.
type listener interface {
	net.Listener
	syscall.Conn
}

// Listen returns the predecessor's listener of the same network and address, as they were
// given to Listen there, or a new one. Only listeners of TCP and Unix sockets can be handed
// over. Close it before the process ends: a Unix socket is removed then, unless it was handed
// over.
func (h *Handover) Listen(network, address string) (net.Listener, error) {
	return h.ListenBy(network, address, func() (net.Listener, error) { return net.Listen(network, address) })
}

// ListenBy is Listen that calls open for a new listener, which may come from elsewhere, such as
// from systemd. Network and address are only its name then.
func (h *Handover) ListenBy(network, address string, open func() (net.Listener, error)) (l net.Listener, err error) {
	name := network + " " + address
	h.mu.Lock()
	fd, ok := h.inherited[name]
	delete(h.inherited, name)
	h.mu.Unlock()
	if ok {
		l, err = handover.Listener(fd)
	} else {
		l, err = open()
	}
	if err != nil {
		return nil, err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	can, ok := l.(listener)
	switch {
	case !ok:
		err = fmt.Errorf("limpet: a listener of type %T can't be handed over: want a *net.TCPListener or *net.UnixListener", l)
	case h.listeners[name] != nil:
		err = fmt.Errorf("limpet: there is a listener on %s already", name)
	default:
		h.listeners[name] = can
		return l, nil
	}
	l.Close()
	return nil, err
}

// unlink says whether Unix sockets are removed when their listeners are closed.
func (h *Handover) unlink(on bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, l := range h.listeners {
		if u, ok := l.(*net.UnixListener); ok {
			u.SetUnlinkOnClose(on)
		}
	}
}
