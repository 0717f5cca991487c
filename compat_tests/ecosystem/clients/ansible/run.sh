# Modules and both connection plugins of community.docker; the second run of the playbook must change nothing.
ansible-playbook playbook.yml
ansible-playbook playbook.yml | tee second.log
grep -q 'localhost .* changed=0 ' second.log
ansible-playbook remove.yml
