#!/bin/sh
# Makes api/holdfastpb and the OpenAPI file from api/proto. Needs protoc (Debian: protobuf-compiler libprotobuf-dev); the plugins are
# pinned in tools/go.mod.
set -eu
cd "$(dirname "$0")/.."
bin=$(pwd)/build/bin
mkdir -p "$bin"
for plugin in google.golang.org/protobuf/cmd/protoc-gen-go google.golang.org/grpc/cmd/protoc-gen-go-grpc \
	github.com/grpc-ecosystem/grpc-gateway/v2/protoc-gen-grpc-gateway \
	github.com/grpc-ecosystem/grpc-gateway/v2/protoc-gen-openapiv2; do
	go build -modfile=tools/go.mod -o "$bin/" "$plugin"
done
PATH=$bin:$PATH protoc -I api/proto \
	--go_out=. --go_opt=module=holdfast \
	--go-grpc_out=. --go-grpc_opt=module=holdfast \
	--grpc-gateway_out=. --grpc-gateway_opt=module=holdfast,grpc_api_configuration=api/proto/http.yaml \
	--openapiv2_out=api --openapiv2_opt=grpc_api_configuration=api/proto/http.yaml,allow_merge=true,merge_file_name=openapi,json_names_for_fields=true \
	api/proto/holdfast/v1/*.proto
mv api/openapi.swagger.json api/openapi.json
