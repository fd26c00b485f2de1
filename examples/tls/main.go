// The tls example takes https and wss from clients and speaks plain HTTP to its
// backends, or https to those whose URL says so. It replaces
//
//	server {
//	    listen 443 ssl;
//	    ssl_certificate     site.pem;
//	    ssl_certificate_key site.key;
//	    location / {
//	        proxy_pass http://nodes;  # https://nodes for TLS there, with
//	        # proxy_ssl_verify on; proxy_ssl_server_name on; proxy_ssl_trusted_certificate ca.pem;
//	        proxy_set_header Upgrade           $http_upgrade;
//	        proxy_set_header Connection        $connection_upgrade;
//	        proxy_set_header Host              $host;
//	        proxy_set_header X-Forwarded-Proto $scheme;
//	    }
//	}
//
// and is run as
//
//	tls -cert site.pem -key site.key a=http://10.0.0.1:3000 b=http://10.0.0.2:3000
//	tls -cert site.pem -key site.key -backend-ca ca.pem a=https://node1.internal:3443
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"flag"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/limpet-go/limpet/balancer"
	limpet "github.com/limpet-go/limpet/middleware"
)

func main() {
	listen := flag.String("listen", ":443", "`address` to listen on")
	cert := flag.String("cert", "site.pem", "`file` with the certificate and those that lead to its issuer")
	key := flag.String("key", "site.key", "`file` with its private key")
	ca := flag.String("backend-ca", "", "`file` with the issuers of https backends' certificates; none: the system's")
	flag.Parse()
	pool, err := newPool(*ca, flag.Args())
	if err != nil {
		log.Fatal(err)
	}
	ln, err := net.Listen("tcp", *listen)
	if err != nil {
		log.Fatal(err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := serve(ctx, ln, pool, *cert, *key); err != nil {
		log.Fatal(err)
	}
}

// newPool returns a pool of these backends. Its Transport is that of requests, WebSockets and health checks alike.
func newPool(ca string, specs []string) (*balancer.Pool, error) {
	config := &tls.Config{}
	if ca != "" {
		pem, err := os.ReadFile(ca)
		if err != nil {
			return nil, err
		}
		if config.RootCAs = x509.NewCertPool(); !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, errors.New(ca + ": no certificate in it")
		}
	}
	if len(specs) == 0 {
		return nil, errors.New("no backend: give at least one ID=URL")
	}
	var backends []*balancer.Backend
	for _, spec := range specs {
		b, err := balancer.ParseBackend(spec)
		if err != nil {
			return nil, err
		}
		backends = append(backends, b)
	}
	return balancer.NewPool(&balancer.Options{Transport: &balancer.Transport{TLS: config}}, backends...)
}

// serve runs the gateway until ctx ends, and then for as long as its clients need to leave, 5 s at most.
func serve(ctx context.Context, ln net.Listener, pool *balancer.Pool, cert, key string) error {
	gateway, err := limpet.NewGateway(pool, nil)
	if err != nil {
		return err
	}
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		return err
	}
	srv := &http.Server{
		Handler:           gateway,
		ReadHeaderTimeout: 10 * time.Second,
		TLSConfig:         &tls.Config{Certificates: []tls.Certificate{pair}},
	}
	return gateway.Serve(ctx, srv, ln, 5*time.Second)
}
