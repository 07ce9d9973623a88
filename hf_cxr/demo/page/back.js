element.addEventListener('click', (event) => {
  if (event.target.closest('button[data-back]')) trigger('choose', { finding: null });
});
