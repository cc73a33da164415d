#!/bin/sh
# Makes the certificates of the etcd tests: an authority, a server on 127.0.0.1 and a client. They protect nothing.
set -eu
cd "$(dirname "$0")"
days=36500
curve="-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes"
sign() {
    openssl x509 -req -in "$1.csr" -CA ca.pem -CAkey ca-key.pem -CAcreateserial -days $days -out "$1.pem" -extfile "$1.ext"
    rm "$1.csr" "$1.ext"
}
# shellcheck disable=SC2086
openssl req -x509 $curve -keyout ca-key.pem -out ca.pem -days $days -subj "/CN=caravan test authority"
# shellcheck disable=SC2086
openssl req $curve -keyout server-key.pem -out server.csr -subj "/CN=127.0.0.1"
echo "subjectAltName=IP:127.0.0.1,DNS:localhost" > server.ext
sign server
# shellcheck disable=SC2086
openssl req $curve -keyout client-key.pem -out client.csr -subj "/CN=caravan"
echo "extendedKeyUsage=clientAuth" > client.ext
sign client
# Nobody signs with it again: run this script for a new one.
rm -f ca-key.pem ca.srl
