# A container with a health check beside an environment of tox.
docker build -t tox-web:1 -f - . <<'END'
FROM busybox
RUN mkdir /www && echo served >/www/index.html
CMD ["httpd", "-f", "-p", "8080", "-h", "/www"]
END
tox run
