const end = Number(document.body.dataset.end), sound = document.getElementById("sound"), head = document.getElementById("head");
const field = document.querySelector(".field"), bars = document.querySelector(".bars");
field.style.width = `${Math.max(100, Math.min(4000, end / 1000 * 5))}%`;  // five seconds are a quarter of the screen, in a long show
for (const node of document.querySelectorAll(".field [data-at]")) {
  node.style.left = `${node.dataset.at / end * 100}%`;
  if (node.dataset.to) node.style.width = `${Math.max(0, node.dataset.to - node.dataset.at) / end * 100}%`;
}
if (sound) {
  field.classList.add("can-play");
  const wave = document.querySelector(".wave svg");
  sound.addEventListener("loadedmetadata", () => { if (wave) wave.style.width = `${sound.duration * 1000 / end * 100}%`; });
  const play = (ms) => { sound.currentTime = Math.max(0, ms / 1000); sound.play(); };
  document.addEventListener("click", ({ target }) => {
    const button = target.closest("[data-play]"), bar = target.closest(".bars i");
    if (button || bar) play(Number(button ? button.dataset.play : bar.dataset.at));
  });
  const follow = () => {
    head.hidden = sound.paused && !sound.currentTime;
    head.style.left = `${bars.offsetLeft + sound.currentTime * 1000 / end * bars.clientWidth}px`;
    requestAnimationFrame(follow);
  };
  follow();
}
