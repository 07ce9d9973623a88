element.addEventListener('click', (event) => {
  const button = event.target.closest('button[data-finding]');
  if (!button) return;
  const back = button.getAttribute('aria-pressed') === 'true';
  // In one column the image is far above the finding that was chosen.
  if (!back && window.innerWidth < 768) {
    document.querySelector('.cxr-viewer')?.scrollIntoView({ behavior: 'smooth', block: 'start' });
  }
  trigger('choose', { finding: back ? null : button.dataset.finding });
});
