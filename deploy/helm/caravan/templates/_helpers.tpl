{{- define "caravan.name" -}}
{{- if contains .Chart.Name .Release.Name -}}{{ .Release.Name | trunc 50 }}{{- else -}}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 50 | trimSuffix "-" }}{{- end -}}
{{- end -}}

{{- define "caravan.labels" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end -}}

{{- define "caravan.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "caravan.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}

{{- define "caravan.claim" -}}
{{ .Values.store.existingClaim | default (include "caravan.name" .) }}
{{- end -}}

{{- define "caravan.mount" -}}
{{- if .Values.store.s3.url -}}
- {name: cache, mountPath: /cache}
{{- else -}}
- {name: models, mountPath: /data/models}
{{- end -}}
{{- end -}}

{{- define "caravan.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "caravan.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end -}}

{{- define "caravan.env" -}}
- {name: CARAVAN_ETCD, value: {{ join "," .Values.etcd.endpoints | required "etcd.endpoints must name at least one etcd" | quote }}}
- {name: CARAVAN_CLUSTER, value: {{ include "caravan.name" . | quote }}}
{{- with .Values.store.s3 }}{{- if .url }}
- {name: CARAVAN_STORE, value: {{ .url | quote }}}
- {name: CARAVAN_CACHE, value: /cache}
- {name: AWS_REGION, value: {{ .region | quote }}}
{{- with .endpoint }}
- {name: AWS_ENDPOINT_URL, value: {{ . | quote }}}
- {name: AWS_ALLOW_HTTP, value: {{ hasPrefix "http://" . | quote }}}
{{- end }}
{{- with .credentialsSecret }}
- {name: AWS_ACCESS_KEY_ID, valueFrom: {secretKeyRef: {name: {{ . }}, key: AWS_ACCESS_KEY_ID}}}
- {name: AWS_SECRET_ACCESS_KEY, valueFrom: {secretKeyRef: {name: {{ . }}, key: AWS_SECRET_ACCESS_KEY}}}
{{- end }}
{{- else }}
- {name: CARAVAN_STORE, value: /data/models}
{{- end }}{{- end }}
- {name: CARAVAN_ID, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
- {name: OLLAMA_KEEP_ALIVE, value: {{ .Values.limits.keepAlive | quote }}}
- {name: OLLAMA_CONTEXT_LENGTH, value: {{ .Values.limits.contextLength | quote }}}
{{- with .Values.etcd.existingSecret }}
- {name: CARAVAN_ETCD_USER, valueFrom: {secretKeyRef: {name: {{ . }}, key: user}}}
- {name: CARAVAN_ETCD_PASSWORD, valueFrom: {secretKeyRef: {name: {{ . }}, key: password}}}
{{- end }}
{{- end -}}
