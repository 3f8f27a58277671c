{{/* What each service is: its place in the port blocks, what it listens on, and whom it calls. */}}
{{- define "echomesh.services" -}}
{{- $embeddings := (default . .root).Values.embeddings.settings | default dict -}}
routing: {number: 0, public: true, database: false, calls: [auth, memory, models]}
auth: {number: 1, public: true, database: true, calls: []}
memory: {number: 2, public: true, database: true, calls: [auth, embeddings]}
models: {number: 3, public: false, database: false, calls: [auth, embeddings]}
embeddings: {number: 4, public: false, database: false, calls: [auth{{ if $embeddings.dense_model }}, models{{ end }}]}
gateway: {number: 5, public: true, http: true, database: false, calls: [auth, embeddings, memory, models, routing]}
{{- end }}

{{/* The ports of a service, the same as on one machine (docs/operations.md). */}}
{{- define "echomesh.ports" -}}
{{- $number := (get (include "echomesh.services" . | fromYaml) .name).number | int -}}
public: {{ add 7400 $number }}
mesh: {{ add 7410 $number }}
metrics: {{ add 7420 $number }}
health: {{ add 7430 $number }}
{{- end }}

{{- define "echomesh.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end }}

{{/* The name of a part: (dict "root" $ "name" "routing"). */}}
{{- define "echomesh.name" -}}
{{- printf "%s-%s" (include "echomesh.fullname" .root) .name -}}
{{- end }}

{{/* The values of a service over the defaults of all. */}}
{{- define "echomesh.values" -}}
{{- mergeOverwrite (deepCopy .root.Values.defaults) (deepCopy (get .root.Values .name)) | toYaml -}}
{{- end }}

{{- define "echomesh.selector" -}}
app.kubernetes.io/name: {{ default .root.Chart.Name .root.Values.nameOverride }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .name }}
{{- end }}

{{- define "echomesh.labels" -}}
{{ include "echomesh.selector" . }}
app.kubernetes.io/part-of: echomesh
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
{{- end }}

{{/* The image of a service: (dict "root" $ "name" "routing"). */}}
{{- define "echomesh.image" -}}
{{- $own := (include "echomesh.values" . | fromYaml).image -}}
{{- $all := .root.Values.image -}}
{{- $repository := default (printf "%s/%s" $all.repository .name) $own.repository -}}
{{- $tag := default .root.Chart.AppVersion (default $all.tag $own.tag) -}}
{{- $registry := ternary "" (printf "%s/" $all.registry) (empty $all.registry) -}}
{{- $registry }}{{ $repository }}{{ ternary (printf "@%s" $own.digest) (printf ":%s" $tag) (not (empty $own.digest)) -}}
{{- end }}

{{/* Where a service listens: (dict "root" $ "name" "auth" "listener" "public"), host:port. */}}
{{- define "echomesh.address" -}}
{{- $host := ternary (include "echomesh.name" .) (printf "%s-mesh" (include "echomesh.name" .)) (eq .listener "public") -}}
{{- $port := get (include "echomesh.ports" . | fromYaml) .listener | int -}}
{{- printf "%s.%s.svc.%s:%d" $host .root.Release.Namespace .root.Values.clusterDomain $port -}}
{{- end }}

{{/* Where SDKs find a client-facing service. */}}
{{- define "echomesh.endpoint" -}}
{{- if .root.Values.public.host -}}
{{- printf "%s:%d" .root.Values.public.host (int .root.Values.public.port) -}}
{{- else -}}
{{- include "echomesh.address" (merge (dict "listener" "public") .) -}}
{{- end -}}
{{- end }}

{{/* The client-facing services' addresses inside the cluster, by name, whatever SDKs are told. */}}
{{- define "echomesh.inside" -}}
{{- $inside := dict -}}
{{- range $name := list "auth" "memory" "routing" -}}
{{- $_ := set $inside $name (include "echomesh.address" (dict "root" $ "name" $name "listener" "public")) -}}
{{- end -}}
{{- toJson $inside -}}
{{- end }}

{{- define "echomesh.keysSecret" -}}
{{- default (include "echomesh.name" (dict "root" . "name" "keys")) .Values.keys.existingSecret -}}
{{- end }}

{{- define "echomesh.databaseSecret" -}}
{{- default (include "echomesh.keysSecret" .) .Values.database.existingSecret -}}
{{- end }}

{{/* Whether a Job makes keys or the database's roles: "true" or "". */}}
{{- define "echomesh.prepares" -}}
{{- if not (and .Values.keys.existingSecret .Values.database.existingSecret) }}true{{ end -}}
{{- end }}

{{/* What no schema can say, checked once for each release. */}}
{{- define "echomesh.check" -}}
{{- $database := .Values.database -}}
{{- $ways := compact (list $database.existingSecret $database.adminSecret.name (ternary "demo" "" .Values.demo.postgres.enabled)) -}}
{{- if ne (len $ways) 1 -}}
{{- fail "database: set one of database.existingSecret, database.adminSecret.name and demo.postgres.enabled (docs/kubernetes.md)" -}}
{{- end -}}
{{- if and (not $database.existingSecret) .Values.keys.existingSecret -}}
{{- fail "keys.existingSecret: the Job that makes the database's roles keeps their passwords in a Secret of its own; set database.existingSecret too" -}}
{{- end -}}
{{- if and (eq .Values.meshTls.mode "job") .Values.keys.existingSecret -}}
{{- fail "meshTls.mode: the Job that signs certificates keeps them with the keys it makes; with keys.existingSecret use cert-manager" -}}
{{- end -}}
{{- if and $database.pooled (not $database.existingSecret) -}}
{{- fail "database.pooled: only with database.existingSecret, which also names the addresses that lead past the pooler" -}}
{{- end -}}
{{- if and .Values.public.gateway.enabled .Values.public.tls.secretName -}}
{{- fail "public.gateway: it speaks TLS with a certificate of its own and reaches the pods in plaintext; leave public.tls.secretName empty" -}}
{{- end -}}
{{- if not (or .Values.public.tls.secretName .Values.public.plaintext) -}}
{{- fail "public: set public.tls.secretName, or public.plaintext where something in front speaks TLS" -}}
{{- end -}}
{{- if and (or .Values.public.gateway.enabled .Values.public.ingress.enabled) (not .Values.public.host) -}}
{{- fail "public.host: a GRPCRoute or an Ingress needs the name by which SDKs reach the mesh" -}}
{{- end -}}
{{- $memory := include "echomesh.values" (dict "root" . "name" "memory") | fromYaml -}}
{{- if and (not $memory.qdrant.url) (or $memory.autoscaling.enabled $memory.keda.enabled (and (hasKey .Values.memory "replicas") (gt (int $memory.replicas) 1))) -}}
{{- fail "memory: the edge index has one owner; more than one replica needs memory.qdrant.url" -}}
{{- end -}}
{{- end }}
