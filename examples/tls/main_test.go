package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/limpet-go/limpet/internal/exampletest"
	"github.com/limpet-go/limpet/internal/leaktest"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

// certificate writes a certificate for this name that signs itself, and its key.
func certificate(t *testing.T, name string) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{name},
		BasicConstraintsValid: true, IsCA: true,
	}
	public, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	write := func(file, kind string, der []byte) string {
		path := filepath.Join(t.TempDir(), file)
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	return write("cert.pem", "CERTIFICATE", public), write("key.pem", "PRIVATE KEY", secret)
}

// trusting is the configuration of who trusts the certificate in this file.
func trusting(t *testing.T, cert string) *tls.Config {
	t.Helper()
	text, err := os.ReadFile(cert)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(text)
	return &tls.Config{RootCAs: roots}
}

// node answers with what it was told about the client's connection.
func node(w http.ResponseWriter, r *http.Request) {
	says := r.Host + " " + r.Header.Get("X-Forwarded-Proto")
	if r.Header.Get("Upgrade") == "" {
		io.WriteString(w, says)
		return
	}
	conn, err := websocket.Accept(w, r, nil)
	if err != nil {
		return
	}
	defer conn.CloseNow()
	_ = conn.Write(r.Context(), websocket.MessageText, []byte(says))
	_, _, _ = conn.Read(context.Background())
}

func TestTLS(t *testing.T) {
	if _, err := newPool("", nil); err == nil {
		t.Error("a pool without backends")
	}
	cert, key := certificate(t, "www.example.com")
	nodeCert, nodeKey := certificate(t, "localhost")
	plain := httptest.NewServer(http.HandlerFunc(node))
	t.Cleanup(plain.Close)
	secure := httptest.NewUnstartedServer(http.HandlerFunc(node))
	pair, err := tls.LoadX509KeyPair(nodeCert, nodeKey)
	if err != nil {
		t.Fatal(err)
	}
	secure.TLS = &tls.Config{Certificates: []tls.Certificate{pair}}
	secure.StartTLS()
	t.Cleanup(secure.Close)

	for name, backend := range map[string]string{
		"http behind":  plain.URL,
		"https behind": strings.Replace(secure.URL, "127.0.0.1", "localhost", 1),
	} {
		t.Run(name, func(t *testing.T) {
			pool, err := newPool(nodeCert, []string{"a=" + backend})
			if err != nil {
				t.Fatal(err)
			}
			g := exampletest.Serve(t, func(ctx context.Context, ln net.Listener) error {
				return serve(ctx, ln, pool, cert, key)
			})
			jar, err := cookiejar.New(nil)
			if err != nil {
				t.Fatal(err)
			}
			transport := &http.Transport{
				TLSClientConfig: trusting(t, cert),
				DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
					var d net.Dialer
					return d.DialContext(ctx, network, g.Addr)
				},
			}
			t.Cleanup(transport.CloseIdleConnections)
			client := &http.Client{Jar: jar, Transport: transport}

			const want = "www.example.com https"
			res, err := client.Get("https://www.example.com/")
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			if body, err := io.ReadAll(res.Body); string(body) != want || err != nil {
				t.Errorf("the node saw %q, %v; want %q", body, err, want)
			}
			if c := res.Cookies(); len(c) != 1 || !c[0].Secure || !strings.HasPrefix(c[0].Name, "__Host-") {
				t.Errorf("cookies %v, want one that is only sent over TLS", c)
			}
			conn, _, err := websocket.Dial(t.Context(), "wss://www.example.com/", &websocket.DialOptions{HTTPClient: client})
			if err != nil {
				t.Fatal(err)
			}
			defer conn.CloseNow()
			if _, says, err := conn.Read(t.Context()); string(says) != want || err != nil {
				t.Errorf("the node saw %q, %v; want %q", says, err, want)
			}
			if err := conn.Close(websocket.StatusNormalClosure, ""); err != nil {
				t.Error(err)
			}
		})
	}
}
