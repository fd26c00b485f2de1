package upgrade_test

import (
	"crypto/tls"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/limpet-go/limpet/upgrade"
)

// A Listener above TLS hides it neither from handlers nor from net/http, which speaks HTTP/2
// with a *tls.Conn only.
func TestListenerAboveTLS(t *testing.T) {
	t.Parallel()
	keys := httptest.NewUnstartedServer(nil) // of its certificate, and of its client's trust
	keys.StartTLS()
	t.Cleanup(keys.Close)
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.TLS == nil || r.ProtoMajor != 2 {
			t.Errorf("%s, TLS: %v", r.Proto, r.TLS != nil)
		}
	}))
	config := &tls.Config{Certificates: keys.TLS.Certificates, NextProtos: []string{"h2", "http/1.1"}}
	server.Listener = &upgrade.Listener{Listener: tls.NewListener(server.Listener, config)}
	server.Start()
	t.Cleanup(server.Close)
	client := keys.Client()
	client.Transport.(*http.Transport).ForceAttemptHTTP2 = true
	res, err := client.Get("https://" + server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
}
