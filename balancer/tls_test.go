package balancer_test

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/limpet-go/limpet/balancer"
)

// certificate returns one that signs itself, good for clients and servers.
func certificate(t *testing.T, name string) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{name},
		BasicConstraintsValid: true, IsCA: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	must(t, err)
	leaf, err := x509.ParseCertificate(der)
	must(t, err)
	pool := x509.NewCertPool()
	pool.AddCert(leaf)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pool
}

// One configuration, given to the pool, is that of requests, tunnels and checks:
// whom to trust, which certificate to show, and by the URL's host the name to ask for.
func TestOneTLSForAll(t *testing.T) {
	t.Parallel()
	serverCert, serverPool := certificate(t, "localhost")
	clientCert, clientPool := certificate(t, "gateway.example")
	names := make(chan string, 10)
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		names <- r.Method + " for " + r.TLS.ServerName + " by " + r.TLS.PeerCertificates[0].DNSNames[0]
	}))
	server.TLS = &tls.Config{
		Certificates: []tls.Certificate{serverCert},
		ClientAuth:   tls.RequireAndVerifyClientCert,
		ClientCAs:    clientPool,
	}
	server.StartTLS()
	t.Cleanup(server.Close)

	b, err := balancer.NewBackend("a", strings.Replace(server.URL, "127.0.0.1", "localhost", 1), 1)
	must(t, err)
	tr := &balancer.Transport{TLS: &tls.Config{RootCAs: serverPool, Certificates: []tls.Certificate{clientCert}}}
	t.Cleanup(tr.CloseIdleConnections)
	p, err := balancer.NewPool(&balancer.Options{Transport: tr, Check: &balancer.Check{Path: "/"}}, b)
	must(t, err)
	saw := func(method string) {
		t.Helper()
		if got, want := <-names, method+" for localhost by gateway.example"; got != want {
			t.Errorf("the backend saw %q, want %q", got, want)
		}
	}

	req, err := http.NewRequestWithContext(balancer.WithBackend(t.Context(), b), "POST", "http://site.example/", nil)
	must(t, err)
	res, err := p.Transport().RoundTrip(req)
	read(t, res, err)
	saw("POST")

	c, err := p.Transport().Connect(t.Context(), b)
	must(t, err)
	defer c.Close()
	io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	_, err = http.ReadResponse(bufio.NewReader(c), nil)
	must(t, err)
	saw("GET")

	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- p.Run(ctx) }()
	saw("HEAD")
	cancel()
	must(t, <-done)
}
