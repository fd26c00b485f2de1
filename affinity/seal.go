package affinity

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"sync"
)

// A sealed pin is, in unpadded URL-safe base64:
//
//	version(1) nonce(12) ciphertext tag(16)     AES-256-GCM, random nonce
//	ciphertext of: born(4) seen(4) len(key)(1) key home
//
// born and seen are Unix seconds, big endian, good until 2106. The additional data
// of the AEAD is the version and the name of the cookie, so that a value can't be
// used under another name.
const (
	sealVersion = 1
	sealFixed   = 4 + 4 + 1 // bytes before the key
	maxSealed   = 1024      // longer values are not looked at
)

// sealEncoding is strict, so that a value has no second spelling which can be
// opened too.
var sealEncoding = base64.RawURLEncoding.Strict()

// A sealedPin is the content of a cookie's value.
type sealedPin struct {
	born uint32 // when the client was bound to this home
	seen uint32 // when this value was sealed
	key  string
	home string

	old bool // sealed with another key than the first
}

// A sealer seals with the first of its keys and opens what any of them has
// sealed.
type sealer []cipher.AEAD

// secretsOrRandom returns secrets. If there are none it returns a random one,
// and warns that no other process can open what is sealed with it. who is the
// affinity.
func secretsOrRandom(secrets [][]byte, logger *slog.Logger, who string, args ...any) [][]byte {
	if len(secrets) > 0 {
		return secrets
	}
	if logger == nil {
		logger = slog.Default()
	}
	logger.Warn("affinity: "+who+" has no Secrets, made a random one: several replicas need shared Secrets, and so does one that restarts without a Takeover", args...)
	return [][]byte{[]byte(rand.Text() + rand.Text())} // 256 bits
}

// subkeys derives a key of this size from each of the secrets (RFC 5869). Each
// purpose gets another key, so that what one part of Limpet seals can't be used
// with another part.
func subkeys(purpose string, secrets [][]byte, size int) ([][]byte, error) {
	subs := make([][]byte, len(secrets))
	for i, secret := range secrets {
		if err := checkSecret(secrets, i); err != nil {
			return nil, err
		}
		var err error
		if subs[i], err = hkdf.Key(sha256.New, secret, nil, "limpet "+purpose, size); err != nil {
			return nil, err
		}
	}
	return subs, nil
}

// checkSecret tells what is wrong with secret i. The error doesn't contain the
// secret.
func checkSecret(secrets [][]byte, i int) error {
	secret := secrets[i]
	if len(secret) < 32 {
		return fmt.Errorf("secret %d has %d bytes, at least 32 are needed: take the output of openssl rand -hex 32", i, len(secret))
	}
	if bytes.Count(secret, secret[:1]) == len(secret) {
		return fmt.Errorf("secret %d is one byte over and over, which anybody can guess: take the output of openssl rand -hex 32", i)
	}
	return nil
}

// newSealer returns a sealer for this purpose with a key of each of the
// secrets.
func newSealer(purpose string, secrets [][]byte) (sealer, error) {
	subs, err := subkeys(purpose, secrets, 32)
	if err != nil {
		return nil, err
	}
	var s sealer
	for _, sub := range subs {
		block, err := aes.NewCipher(sub)
		if err != nil {
			return nil, err
		}
		aead, err := cipher.NewGCMWithRandomNonce(block)
		if err != nil {
			return nil, err
		}
		s = append(s, aead)
	}
	return s, nil
}

// sealedData returns the additional data for a cookie of this name.
func sealedData(name string) []byte { return append([]byte{sealVersion}, name...) }

// seal returns the value for a cookie with this additional data.
func (s sealer) seal(data []byte, p sealedPin) (string, error) {
	if len(p.key) > 255 {
		return "", errors.New("the client's key is too long for a cookie")
	}
	plain := make([]byte, 0, sealFixed+len(p.key)+len(p.home))
	plain = binary.BigEndian.AppendUint32(plain, p.born)
	plain = binary.BigEndian.AppendUint32(plain, p.seen)
	plain = append(plain, byte(len(p.key)))
	plain = append(plain, p.key...)
	plain = append(plain, p.home...)
	value := sealEncoding.EncodeToString(s[0].Seal([]byte{sealVersion}, nil, plain, data))
	if len(value) > maxSealed {
		return "", errors.New("the backend's ID is too long for a cookie")
	}
	return value, nil
}

// An unsealing has the buffers for opening a value. They are pooled.
type unsealing struct{ text, raw, plain [maxSealed]byte }

var unsealings = sync.Pool{New: func() any { return new(unsealing) }}

// open returns the content of a value. It is false for a value that none of the
// keys has sealed.
func (s sealer) open(data []byte, value string) (sealedPin, bool) {
	if len(value) > maxSealed {
		return sealedPin{}, false
	}
	room := unsealings.Get().(*unsealing)
	defer unsealings.Put(room)
	n, err := sealEncoding.Decode(room.raw[:], append(room.text[:0], value...))
	raw := room.raw[:n]
	if err != nil || len(raw) == 0 || raw[0] != sealVersion {
		return sealedPin{}, false
	}
	for i, aead := range s {
		plain, err := aead.Open(room.plain[:0], nil, raw[1:], data)
		if err != nil {
			continue
		}
		if len(plain) < sealFixed || len(plain) < sealFixed+int(plain[8]) {
			return sealedPin{}, false
		}
		text := string(plain[sealFixed:])
		return sealedPin{
			born: binary.BigEndian.Uint32(plain),
			seen: binary.BigEndian.Uint32(plain[4:]),
			key:  text[:plain[8]],
			home: text[plain[8]:],
			old:  i > 0,
		}, true
	}
	return sealedPin{}, false
}
