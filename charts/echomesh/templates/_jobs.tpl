{{/*
A Secret that a Job fills: (dict "root" "name" "secret"). It is made once, before the release's objects,
and is none of them: whatever is sent in its place would empty it (`--force`), and a rollback to a
release that has it from one that has it not fails.
*/}}
{{- define "echomesh.filledSecret" -}}
{{- $there := lookup "v1" "Secret" .root.Release.Namespace .secret -}}
{{- if not $there }}
apiVersion: v1
kind: Secret
metadata:
  name: {{ .secret }}
  labels: {{- include "echomesh.labels" . | nindent 4 }}
  annotations:
    helm.sh/hook: pre-install,pre-upgrade
    # Not the default, which deletes what is there.
    helm.sh/hook-delete-policy: hook-failed
---
{{- end }}
{{- end }}

{{/* An account that may read and change one existing Secret: (dict "root" "name" "secret"). */}}
{{- define "echomesh.secretWriter" }}
apiVersion: v1
kind: ServiceAccount
metadata:
  name: {{ include "echomesh.name" . }}
  labels: {{- include "echomesh.labels" . | nindent 4 }}
automountServiceAccountToken: false
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata:
  name: {{ include "echomesh.name" . }}
  labels: {{- include "echomesh.labels" . | nindent 4 }}
rules:
  - apiGroups: [""]
    resources: [secrets]
    resourceNames: [{{ .secret }}]
    verbs: [get, patch]
---
{{- include "echomesh.roleBinding" . }}
{{- end }}

{{/* Gives a part's account the rights of the Role of its name. */}}
{{- define "echomesh.roleBinding" }}
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata:
  name: {{ include "echomesh.name" . }}
  labels: {{- include "echomesh.labels" . | nindent 4 }}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: {{ include "echomesh.name" . }}}
subjects:
  - {kind: ServiceAccount, name: {{ include "echomesh.name" . }}, namespace: {{ .root.Release.Namespace }}}
{{- end }}

{{/* The pod of a Job that runs a command of auth: what follows are the container's own lines. */}}
{{- define "echomesh.jobPod" -}}
{{- $image := dict "root" .root "name" "auth" -}}
serviceAccountName: {{ include "echomesh.name" . }}
# The only pods of the chart that speak to the API server.
automountServiceAccountToken: true
restartPolicy: OnFailure
enableServiceLinks: false
{{- include "echomesh.pullSecrets" . }}
securityContext:
  {{- include "echomesh.podSecurity" . | nindent 2 }}
containers:
  - name: {{ .name }}
    image: {{ include "echomesh.image" $image | quote }}
    imagePullPolicy: {{ .root.Values.image.pullPolicy }}
    resources: {requests: {cpu: 50m, memory: 96Mi}, limits: {memory: 256Mi}}
    securityContext:
      {{- include "echomesh.containerSecurity" . | nindent 6 }}
{{- end }}

{{/* The spec of the Job that makes the keys: (dict "root" "name" "secret"). */}}
{{- define "echomesh.prepareJob" -}}
{{- $admin := .root.Values.database.adminSecret -}}
backoffLimit: 20
template:
  metadata:
    labels: {{- include "echomesh.labels" . | nindent 6 }}
  spec: {{- include "echomesh.jobPod" . | nindent 4 }}
        args:
          - prepare
          - --secret={{ .secret }}
          - --services=auth,embeddings,gateway,memory,models,routing
          {{- if eq .root.Values.meshTls.mode "job" }}
          - --certificates={{ include "echomesh.trustDomain" .root }}
          {{- end }}
          {{- if $admin.name }}
          - --postgres-url-file=/admin/{{ $admin.key }}
          - --wait={{ int .root.Values.database.waitSeconds }}
          {{- else if .root.Values.demo.postgres.enabled }}
          - --postgres-host={{ include "echomesh.name" (dict "root" .root "name" "postgres") }}.{{ .root.Release.Namespace }}.svc.{{ .root.Values.clusterDomain }}:5432
          - --wait={{ int .root.Values.database.waitSeconds }}
          {{- end }}
        volumeMounts:
          - {name: tmp, mountPath: /tmp}
          {{- if $admin.name }}
          - {name: admin, mountPath: /admin, readOnly: true}
          {{- end }}
    volumes:
      - {name: tmp, emptyDir: {medium: Memory}}
      {{- if $admin.name }}
      - {name: admin, secret: {secretName: {{ $admin.name }}, defaultMode: 0440}}
      {{- end }}
{{- end }}
