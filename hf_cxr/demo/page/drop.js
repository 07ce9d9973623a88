// The bytes of a file go to the server in the request itself, never as a file upload: that would be kept on its disk.
const send = (what) => {
  // In one column the answer is below what fits on a phone.
  if (window.innerWidth < 768) {
    document.querySelector('.cxr-viewer')?.scrollIntoView({ behavior: 'smooth', block: 'start' });
  }
  trigger('give', what);
};
const give = (file) => {
  if (!file) return;
  if (file.size > props.bytes) {
    send({ name: file.name, size: file.size });
    return;
  }
  const reader = new FileReader();
  reader.onload = () => send({ name: file.name, content: reader.result.slice(reader.result.indexOf(',') + 1) });
  reader.onerror = () => send({ name: file.name, content: '' });
  reader.readAsDataURL(file);
};
const zone = () => element.querySelector('.cxr-drop');
const over = (on) => zone() && zone().classList.toggle('cxr-over', on);
element.addEventListener('change', (event) => {
  if (event.target.type !== 'file') return;
  give(event.target.files[0]);
  event.target.value = '';
});
element.addEventListener('click', (event) => {
  const button = event.target.closest('button[data-example]');
  if (button) send({ example: Number(button.dataset.example) });
});
// Anywhere on the page: a file that misses the zone would otherwise replace the page.
document.addEventListener('dragover', (event) => { event.preventDefault(); over(true); });
document.addEventListener('dragleave', (event) => { if (!event.relatedTarget) over(false); });
document.addEventListener('drop', (event) => {
  event.preventDefault();
  over(false);
  give(event.dataTransfer.files[0]);
});
document.addEventListener('paste', (event) => give(event.clipboardData.files[0]));
